import type { PointRef, ServiceRef } from '../refs.ts'

/** What an implementation says it can do; the suite holds it to both the yes and the no. */
export type Capabilities<K extends string> = Readonly<Record<K, boolean>>
type Awaitable<T> = T | Promise<T>

export interface Case<T, K extends string = string> {
  /** Only for implementations with this capability. */
  readonly needs?: K
  run(subject: T): Awaitable<void>
  /** How an implementation without it must refuse. Required with `needs`. */
  refuse?(subject: T): Awaitable<void>
}

/** A contract's promises as data: one entry, one behaviour, one test. */
export interface Conformance<T, K extends string = string> {
  readonly contract: string
  readonly cases: Readonly<Record<string, Case<T, K>>>
}

/** Ships with a contract that others may implement. A subject holds what the cases need: the service, and how to make trouble for it. */
export const defineConformance = <T, K extends string = never>(contract: ServiceRef<any> | PointRef<any>, cases: Record<string, Case<T, K>>): Conformance<T, K> =>
  ({ contract: contract.id, cases })

/** One implementation, made anew for each case and disposed after it. */
export interface Subject<T> { readonly subject: T; [Symbol.asyncDispose]?(): Awaitable<void> }

/** Registers a test; mocha's and node:test's `it` both fit. */
export type Register = (name: string, run: () => Promise<void>) => unknown

/** Registers one test for each case: `describe('my store', () => conform(it, suite, createMine, { versions: false }))`. */
export function conform<T, K extends string = never>(register: Register, suite: Conformance<T, K>, create: () => Awaitable<Subject<T>>, can: Capabilities<K> = {} as Capabilities<K>): void {
  for (const [name, each] of Object.entries<Case<T, K>>(suite.cases)) {
    const able = each.needs === undefined || can[each.needs]
    const run = able ? each.run : each.refuse
    if (!run) throw new Error(`${suite.contract}: "${name}" needs "${each.needs}" and does not say how to refuse it`)
    register(`${suite.contract}: ${name}${able ? '' : ' (refused)'}`, async () => {
      const made = await create()
      try { await run.call(each, made.subject) } finally { await made[Symbol.asyncDispose]?.() }
    })
  }
}
