import { conform } from '#core/testing'
import { eventsConformance } from '#conformance/events'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'
import { postgresPlace, sqlitePlace, type Place } from '../cluster/kit.ts'
import { open } from './kit.ts'

function suite(place: () => Promise<Place>) {
  conform(it, eventsConformance, async () => {
    const here = await place()
    const opened = await open(here).catch(async (error: unknown) => { await here[Symbol.asyncDispose](); throw error })
    return { subject: opened.subject, async [Symbol.asyncDispose]() { try { await opened[Symbol.asyncDispose]() } finally { await here[Symbol.asyncDispose]() } } }
  })
}

describe('events on SQLite', () => suite(sqlitePlace))

describe('events on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  suite(() => postgresPlace(server))
})
