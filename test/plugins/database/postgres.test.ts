import assert from 'node:assert/strict'
import { Secret } from '#core'
import { conform, createTestRuntime, eventually } from '#core/testing'
import { databaseConformance } from '#conformance/database'
import { Database, DatabaseErrors } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import database from '../../../plugins/database/index.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

const start = (url: string, config: Record<string, unknown> = {}) =>
  createTestRuntime({ plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', url), ...config } }], timeouts: { setup: 20_000 } })

describe('database on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })

  const open = async (config?: Record<string, unknown>) => {
    const place = await server.newDatabase()
    const t = await start(place.url, config).catch(async (error: unknown) => { await place.drop(); throw error })
    return { t, place, db: t.get(Database), async [Symbol.asyncDispose]() { try { await t[Symbol.asyncDispose]() } finally { await place.drop() } } }
  }

  conform(it, databaseConformance, async () => {
    const opened = await open()
    return { subject: { database: opened.db }, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() }
  })
})
