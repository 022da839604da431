import { Deadline } from '#core'

/** The client left before it had its answer: nobody is there to be told. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone'
  constructor() { super('the client went away') }
}

/** Runs `expire` when its time is up. */
export class Timeout extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

/** Settles as `work` does, unless the signal aborts first: then it rejects with the signal's reason, and what `work` does is nobody's concern. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const aborted = () => reject(signal.reason)
    if (signal.aborted) aborted()
    else signal.addEventListener('abort', aborted, { once: true })
    const settle = <V>(then: (value: V) => void) => (value: V) => { signal.removeEventListener('abort', aborted); then(value) }
    work.then(settle(resolve), settle(reject))
  })
}
