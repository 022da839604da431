import { Cron } from 'croner'

/** Times that are run one by one after they were missed. */
export const MOST_MISSED = 100

export interface Timing {
  readonly cron: string
  readonly time_zone: string
  /** Milliseconds; both are included. */
  readonly starts_at: number | null
  readonly ends_at: number | null
}

export const isTimeZone = (name: string): boolean => { try { new Intl.DateTimeFormat('en', { timeZone: name }); return true } catch { return false } }

/** Why this is no expression that will ever come to pass; nothing if it is one. */
export function faultOf(expression: string): string | undefined {
  if (![5, 6].includes(expression.trim().split(/\s+/).length)) return 'write it with five or six fields'
  try {
    return parse(expression, 'UTC').nextRun(new Date(0)) ? undefined : 'there is no such day'
  } catch (error) { return (error as Error).message.replace(/^Cron\w+: /, '') }
}

function parse(expression: string, timezone: string): Cron { return new Cron(expression, { timezone, paused: true, mode: '5-or-6-parts' }) }

const parsed = new Map<string, Cron>()
/** Parsing takes longer than asking. */
function cronOf({ cron, time_zone }: Pick<Timing, 'cron' | 'time_zone'>): Cron {
  const key = `${time_zone} ${cron}`
  let found = parsed.get(key)
  if (!found) {
    if (parsed.size >= 1_000) parsed.clear()
    parsed.set(key, (found = parse(cron, time_zone)))
  }
  return found
}

/** The first time after that moment; nothing if there is none any more. */
export function nextAfter(timing: Timing, after: number): number | null {
  const from = Math.max(after, (timing.starts_at ?? -Infinity) - 1)
  const next = cronOf(timing).nextRun(new Date(from))?.getTime()
  return next === undefined || (timing.ends_at !== null && next > timing.ends_at) ? null : next
}

/** The times from `next_at` until now, the last 100 of them, the oldest first; at least `next_at` itself. */
export function dueTimes(timing: Timing, next_at: number, now: number): number[] {
  const cron = cronOf(timing)
  const times: number[] = []
  const until = Math.min(now, timing.ends_at ?? now)
  // From now back: forward from a time long ago they may be millions.
  let at = cron.previousRuns(1, new Date(until - (until % 1_000) + 1_000))[0]?.getTime()
  while (at !== undefined && at >= next_at && times.length < MOST_MISSED) {
    times.unshift(at)
    at = cron.previousRuns(1, new Date(at))[0]?.getTime()
  }
  return times.length ? times : [next_at]
}
