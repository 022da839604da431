import type { Clock, Live } from '#core'
import type { ClockSkew } from '#contracts/cluster'

/** The time that all processes share. By its own a machine whose clock is fast would take jobs from workers that live. */
export const sharedClock = (clock: Clock, skew: Live<ClockSkew>): Clock => ({
  now: () => clock.now() + (skew.current?.ms ?? 0),
  deadlines: clock.deadlines, after: (ms, run) => clock.after(ms, run), every: (ms, run) => clock.every(ms, run),
})
