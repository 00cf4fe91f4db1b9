"""Rules of size: how many workers, how light the work, which streams; pure functions of measurements and time.

load     what is measured: rates, service times, quantiles over sliding windows, in bounded memory
scale    workers that a stage wants: StageLoad + ScaleRule + ScaleState → number, with hysteresis
ladder   how light a live stream's work is made while it lags, and when it is taken back
turns    whose turn it is among streams that share cores: who gives for another, who goes back first
admit    whether a further stream fits: its CPU cost predicted, corrected by what running streams really use

Nothing here knows a clock, a thread or Ray: time is an argument (seconds of any steady clock), so that a simulated hour
takes milliseconds. `actors` measures, asks, and carries out the answer.
"""
