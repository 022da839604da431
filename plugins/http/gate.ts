import { HttpErrors } from '#contracts/http'
import type { HttpConfig } from './config.ts'

export type ServerState = 'starting' | 'serving' | 'draining'
type Kind = 'request' | 'stream'

/** One request on its way, from its match to the last byte of its answer. */
export interface Pass {
  readonly controller: AbortController
  /** Counts against the limits. A request whose body still comes in does not: slow clients would lock out the others. */
  take(kind: Kind): void
  yield(): void
  /** Turns into a stream and is counted as one. */
  stream(): void
  leave(): void
}

/** Who is inside, and whether more may come in. */
export class Gate {
  state: ServerState = 'starting'
  readonly #inside = new Map<AbortController, Kind>()
  readonly #counts = { request: 0, stream: 0 }
  readonly #waiting = new Set<() => void>()
  #bodyBytes = 0
  constructor(public settings: HttpConfig) {}

  get counts(): Readonly<Record<Kind, number>> { return this.#counts }
  get bodyBytes(): number { return this.#bodyBytes }

  /** `early` ones are never refused and never counted. */
  enter(kind: Kind, early: boolean): Pass {
    const controller = new AbortController()
    let counted: Kind | undefined
    const give = () => { if (counted) this.#counts[counted]--; counted = undefined }
    const pass: Pass = {
      controller,
      take: wanted => {
        if (early) return
        const limit = wanted === 'stream' ? this.settings.maxStreams : this.settings.maxConcurrentRequests
        if (this.#counts[wanted] >= limit) throw HttpErrors.BUSY({ limit })
        this.#counts[(counted = wanted)]++
      },
      yield: give,
      stream: () => {
        if (counted === 'stream') return
        give()
        pass.take('stream')
        this.#inside.set(controller, 'stream')
        this.#tell()
      },
      leave: () => {
        give()
        this.#inside.delete(controller)
        this.#tell()
      },
    }
    pass.take(kind)
    this.#inside.set(controller, kind)
    return pass
  }

  /** Bytes of bodies that are being received. Throws before memory would run out. */
  hold(bytes: number): void {
    if (this.#bodyBytes + bytes > this.settings.bodyMemory) throw HttpErrors.BUSY({ limit: this.#inside.size })
    this.#bodyBytes += bytes
  }
  release(bytes: number): void { this.#bodyBytes -= bytes }

  /** Settles when no request, or no stream, is inside. */
  async empty(kind: Kind): Promise<void> {
    while ([...this.#inside.values()].includes(kind)) await new Promise<void>(resolve => this.#waiting.add(resolve))
  }

  abort(reason: Error, kind?: Kind): void {
    for (const [controller, each] of this.#inside) if (kind === undefined || each === kind) controller.abort(reason)
  }

  #tell(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }
}
