"""The rules of motion: state machines without threads, clock or Ray, generic in what a reference to a payload is.

`signals` says what they hear and answer, `epoch` is the machine of one epoch, `stream` strings epochs together,
`chain` runs the stages of one box, `local` carries the actions out in this process (`actors/` does it on Ray).
"""
