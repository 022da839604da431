import { BackplaneError, rootOf, type Clock } from '#core'

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 404])

export interface AskingOptions { readonly clock: Clock; readonly everyMs: number; /** Of the stream. */ readonly signal: AbortSignal }

/** Asks again and again whether somebody may, and calls back once he may not. That nobody can say so now is no refusal. */
export function onRefusal(may: () => Promise<void>, { clock, everyMs, signal }: AskingOptions, refused: (why: BackplaneError) => void): void {
  let asking = false
  const cancel = clock.every(everyMs, async () => {
    if (asking) return
    asking = true
    try { await may() } catch (error) {
      const root = rootOf(error)
      if (signal.aborted || !(root instanceof BackplaneError && root.expose && REFUSALS.has(root.status))) return
      cancel()
      refused(root)
    } finally { asking = false }
  })
  signal.addEventListener('abort', cancel, { once: true })
  if (signal.aborted) cancel()
}
