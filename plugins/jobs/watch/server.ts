import type { CommandIo } from '#core'
import type { ResultRef } from '#contracts/jobs'

interface Refusal { readonly code?: string; readonly detail?: string; readonly title?: string; readonly fix?: string }

/** The answer's JSON; nothing, once it is told, if the server refuses. */
export async function ask<T>(io: CommandIo, path: string, init: RequestInit = {}): Promise<T | undefined> {
  const response = await io.server!.fetch(path, { ...init, signal: io.signal })
  const body = await response.json().catch(() => ({})) as T & Refusal
  if (response.ok) return body
  const told = body.detail ?? body.title ?? `the server answered ${response.status}`
  io.err(`${body.code ? `${body.code}: ` : ''}${told}${body.fix ? `\n  fix: ${body.fix}` : ''}`)
  return undefined
}

/** What a server tells with a result, fetched if it is kept apart. */
export async function whole<T extends { readonly result?: unknown; readonly result_ref?: ResultRef | null }>(io: CommandIo, told: T): Promise<T> {
  if (!told.result_ref) return told
  const result = await ask(io, told.result_ref.url)
  return result === undefined ? told : { ...told, result, result_ref: null }
}
