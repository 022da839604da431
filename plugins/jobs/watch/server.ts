import type { CommandIo } from '#core'
import type { ResultRef } from '#contracts/jobs'

interface Refusal {
  readonly code?: string
  readonly detail?: string
  readonly title?: string
  readonly fix?: string
  readonly errors?: readonly { readonly path: string; readonly message: string }[]
}

/** The answer's JSON; nothing, once it is told, if the server refuses. `called`: what the user calls a field. */
export async function ask<T>(io: CommandIo, path: string, init: RequestInit = {}, called = (field: string) => field): Promise<T | undefined> {
  const response = await io.server!.fetch(path, { ...init, signal: io.signal })
  const body = await response.json().catch(() => ({})) as T & Refusal
  if (response.ok) return body
  const { errors = [], detail = body.title ?? `the server answered ${response.status}` } = body
  const renamed = errors.map(each => ({ ...each, name: called(each.path) }))
  // What the user never wrote, he would look for in vain.
  const own = renamed.some(({ path, name }) => name !== path) || renamed.length > 1
  const told = own ? ['the server refuses it:', ...renamed.map(({ name, message }) => `${name}: ${message}`)].join('\n    ') : detail
  io.err(`${body.code ? `${body.code}: ` : ''}${told}${body.fix ? `\n  fix: ${body.fix}` : ''}`)
  return undefined
}

/** What a server tells with a result, fetched if it is kept apart. */
export async function whole<T extends { readonly result?: unknown; readonly result_ref?: ResultRef | null }>(io: CommandIo, told: T): Promise<T> {
  if (!told.result_ref) return told
  const result = await ask(io, told.result_ref.url)
  return result === undefined ? told : { ...told, result, result_ref: null }
}
