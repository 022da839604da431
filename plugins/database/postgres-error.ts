import { BackplaneError } from '#core'
import { DatabaseErrors } from '#contracts/database'

const RULES: Readonly<Record<string, string>> = { 23505: 'unique', 23503: 'foreign key', 23502: 'not-null', 23514: 'check', 23001: 'restrict', '23P01': 'exclusion' }
/** The connection is gone, or the server is: by SQLSTATE. */
const GONE = /^(08...|57P0[1-5]|25P0[34])$/
/** The server can't do it now: no resources, a deadline, a lock, no database, no entry. */
const AWAY = /^(53...|57014|55P03|40001|40P01|3D000|28...)$/

/** Not yet there, or full: what waiting mends. */
const LATER = /^(08...|57P0[1235]|53...)$/
const UNREACHED = new Set(['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'EHOSTDOWN', 'ENETUNREACH', 'ENETDOWN', 'ENOTFOUND', 'EAI_AGAIN', 'ENOENT'])

const partOf = (error: unknown, key: string): unknown => (error as Record<string, unknown> | undefined)?.[key]

/** SQLSTATE, if the server itself said no. */
export const stateOf = (error: unknown): string | undefined => (typeof partOf(error, 'severity') === 'string' ? String(partOf(error, 'code')) : undefined)

/** Is the connection of no use any more? */
export function isLost(error: unknown): boolean {
  if (error instanceof BackplaneError || error instanceof TypeError) return false
  const state = stateOf(error)
  return state === undefined || GONE.test(state)
}

/** Is a server that was asked for a connection only away? A wrong password, say, stays wrong. */
export function isAway(error: unknown): boolean {
  const state = stateOf(error)
  if (state !== undefined) return LATER.test(state)
  // The driver gives its own time-outs and broken connections no code.
  return UNREACHED.has(String(partOf(error, 'code'))) || /timeout|terminated/i.test(reasonFrom(error))
}

/** Did the server itself say that, and not somebody on the way to it? */
export function isAnswer(error: unknown): boolean {
  const state = stateOf(error)
  return state !== undefined && !state.startsWith('08')
}

/** Why, in one line; an error of several addresses has no message of its own. */
export function reasonFrom(error: unknown): string {
  const first = error instanceof AggregateError && !error.message ? error.errors[0] : error
  const message = first instanceof Error ? first.message : String(first)
  return message || String(partOf(error, 'code') ?? 'no answer')
}

/**
 * What callers get. Never the error of the driver: it holds what users wrote (`detail`, `where`), and where the server is.
 */
export function errorOf(error: unknown): unknown {
  if (error instanceof BackplaneError || error instanceof TypeError) return error
  const state = stateOf(error)
  const reason = reasonFrom(error)
  if (state === undefined || GONE.test(state) || AWAY.test(state)) return DatabaseErrors.UNAVAILABLE({ reason })
  if (RULES[state]) return DatabaseErrors.CONSTRAINT({ kind: RULES[state], reason })
  // The message of a data error quotes the value.
  if (state.startsWith('22')) return DatabaseErrors.VALUE({ reason: `it does not fit its column (SQLSTATE ${state})` })
  return Object.assign(new Error(reason), { code: state })
}
