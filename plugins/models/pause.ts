import type { Clock } from '#core'

/** Waits; rejects with the signal's reason when that aborts. */
export function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const aborted = () => { cancel(); reject(signal.reason as Error) }
    const cancel = clock.after(ms, () => { signal.removeEventListener('abort', aborted); resolve() })
    signal.addEventListener('abort', aborted, { once: true })
  })
}

const FIRST_MS = 500

/** The pause before the nth try again, from 0: twice as long each time, and half of it by chance, so that not all come back at once. */
export const backoff = (nth: number, maxMs: number, random = Math.random): number => Math.min(maxMs, FIRST_MS * 2 ** nth) * (0.5 + random() / 2)
