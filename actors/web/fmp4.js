// What a player needs to know of our fragmented MP4 (ISO/IEC 14496-12): when it starts, when it was captured.

const NTP_OF_1970_S = 2208988800;

// The content [start, stop) of the first box at `path`; null where there is none.
function find(view, path, start = 0, stop = view.byteLength) {
  let at = start;
  while (at + 8 <= stop) {
    const size = view.getUint32(at);
    if (size < 8) return null;
    const kind = String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at + 4, 4));
    if (kind === path[0]) {
      return path.length === 1 ? [at + 8, at + size] : find(view, path.slice(1), at + 8, Math.min(stop, at + size));
    }
    at += size;
  }
  return null;
}

function viewOf(data) {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

// Of an initialisation segment: ticks a second, and the ticks that its edit list takes back.
export function clockOf(init) {
  const view = viewOf(init);
  const header = find(view, ["moov", "trak", "mdia", "mdhd"]);
  const edits = find(view, ["moov", "trak", "edts", "elst"]);
  return {
    ticks: view.getUint32(header[0] + 12),
    shift: edits ? Number(view.getBigInt64(edits[0] + 16)) : 0,
  };
}

// The type of its video ("video/mp4; codecs=…"), for Media Source Extensions.
export function videoTypeOf(init) {
  for (let at = 0; at + 8 < init.length; at++) {
    if (init[at] === 0x61 && init[at + 1] === 0x76 && init[at + 2] === 0x63 && init[at + 3] === 0x43) {
      const profile = [...init.subarray(at + 5, at + 8)].map((value) => value.toString(16).padStart(2, "0")).join("");
      return `video/mp4; codecs="avc1.${profile}"`;
    }
  }
  throw new Error("the stream's initialisation segment names no codec");
}

// When a segment or fragment starts on its track's timeline, in seconds.
export function startOf(data, clock) {
  const view = viewOf(data);
  const decode = find(view, ["moof", "traf", "tfdt"]);
  return (Number(view.getBigUint64(decode[0] + 4)) - clock.shift) / clock.ticks;
}

// When a live fragment's frame was captured (Unix ms), null if it does not say.
export function capturedAt(fragment) {
  const view = viewOf(fragment);
  const time = find(view, ["prft"]);
  if (!time) return null;
  return (view.getUint32(time[0] + 8) - NTP_OF_1970_S + view.getUint32(time[0] + 12) / 2 ** 32) * 1000;
}
