import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PostgresServer, RedisServer, type TestDatabase } from '../../test/support/services.ts'
import { ROOT } from './host.ts'
import { Instance, Kept, type Roles } from './instance.ts'
import { pause, randoms } from './random.ts'
import type { Engine } from './show.ts'
import { Sink } from './sink.ts'
import { PostgresTables, SqliteTables, type Tables } from './tables.ts'

type Plugins = Readonly<Record<string, unknown>>
export interface StageOptions {
  readonly engine: Engine
  readonly host: string
  readonly seed: number
  readonly scale: number
  say(text: string): void
}

/** A deployment of the real product on its own servers, what it must keep to, and what was measured. */
export class Stage implements AsyncDisposable {
  readonly numbers: Record<string, number | string> = {}
  readonly violations: string[] = []
  readonly random: () => number
  readonly folder = mkdtempSync(join(tmpdir(), 'chaos-'))
  readonly sink = new Sink()
  redis: RedisServer | undefined
  postgres: PostgresServer | undefined
  #database: TestDatabase | undefined
  #tables: Tables | undefined
  #plugins: Plugins = {}
  #jobs: Record<string, unknown> = {}
  #over = false
  readonly #instances = new Set<Instance>()
  readonly #kept = new Set<Kept>()

  private constructor(readonly options: StageOptions) { this.random = randoms(options.seed) }

  static async open(options: StageOptions): Promise<Stage> {
    const stage = new Stage(options)
    try {
      await stage.sink.listen()
      if (options.engine.queue === 'bullmq') stage.redis = await RedisServer.start()
      if (options.engine.database === 'postgres') {
        stage.postgres = await PostgresServer.start()
        stage.#database = await stage.postgres.newDatabase()
        stage.#tables = new PostgresTables(stage.#database.url)
      } else stage.#tables = new SqliteTables(join(stage.folder, 'data/backplane.db'))
      stage.configure({})
      return stage
    } catch (error) {
      await stage[Symbol.asyncDispose]()
      throw error
    }
  }

  get engine(): Engine { return this.options.engine }
  /** So many of them, at this scale. */
  many(count: number, least = 1): number { return Math.max(least, Math.round(count * this.options.scale)) }
  say(text: string): void { this.options.say(text) }
  measure(name: string, value: number | string): void { this.numbers[name] = value }
  /** One promise of the product. */
  expect(kept: boolean, broken: string): void {
    if (kept) return
    this.violations.push(broken)
    this.say(`BROKEN: ${broken}`)
  }

  /** Plugins besides the usual ones, and settings of `jobs`. Before the first start. */
  configure({ plugins = {}, jobs = {} }: { plugins?: Plugins; jobs?: Record<string, unknown> }): void {
    this.#plugins = plugins
    // In small nobody waits eight seconds for a lease.
    this.#jobs = { ...(this.options.scale < 0.1 && { lease: { ms: 2_000, renew_ms: 500 } }), ...jobs }
    const { queue, database } = this.engine
    const config = {
      log: { format: 'json' }, runtime: { dataDir: 'data' },
      plugins: {
        http: { config: { port: 0, maxConcurrentRequests: 500 } }, 'access-open': {}, cluster: {}, events: {}, health: {}, jobs: { config: this.#jobs },
        database: { config: database === 'postgres' ? { url: '${env:CHAOS_DATABASE}' } : {} },
        ...(queue === 'bullmq' ? { redis: { config: { url: '${env:CHAOS_REDIS}' } }, 'queue-bullmq': {} } : { 'queue-embedded': {} }),
        chaos: { use: join(ROOT, 'scripts/chaos/plugin'), config: { sink: this.sink.url } },
        ...this.#plugins,
      },
    }
    mkdirSync(join(this.folder, 'config'), { recursive: true })
    writeFileSync(join(this.folder, 'config/default.yaml'), JSON.stringify(config, null, 2))
  }

  /** A process that takes jobs in, or one that runs so many at once; as `all` it does both. */
  begin(concurrency: number, roles: Roles = concurrency ? 'all' : 'api'): Instance {
    if (this.#over) throw new Error('the show is over')
    const env: Record<string, string> = {
      BACKPLANE__plugins__jobs__config__concurrency: String(concurrency),
      ...(this.#database && { CHAOS_DATABASE: this.#database.url }), ...(this.redis && { CHAOS_REDIS: this.redis.url }),
    }
    const instance = new Instance({ host: this.options.host, roles, cwd: this.folder, env })
    this.#instances.add(instance)
    void instance.ended.then(() => this.#instances.delete(instance))
    return instance
  }

  async start(concurrency: number, roles?: Roles): Promise<Instance> {
    const instance = this.begin(concurrency, roles)
    await instance.started
    return instance
  }

  /** One that is started again whenever it ends. */
  async keep(concurrency: number, roles?: Roles): Promise<Kept> {
    const kept = new Kept(() => this.begin(concurrency, roles))
    this.#kept.add(kept)
    await kept.current.started
    return kept
  }

  /** Asks the tables themselves, not the product. */
  async rows<T = Record<string, any>>(sql: string): Promise<T[]> { return await this.#tables!.rows(sql) as T[] }
  async count(where: string): Promise<number> {
    return Number((await this.rows<{ n: number | string }>(`SELECT COUNT(*) AS n FROM jobs WHERE ${where}`))[0]!.n)
  }

  /** Until it is so. A promise is broken if that takes longer. */
  async until(what: string, check: () => boolean | Promise<boolean>, ms = 300_000, every = 50): Promise<boolean> {
    for (const end = performance.now() + ms; performance.now() < end && !this.#over; await pause(every)) if (await check()) return true
    this.expect(false, `waited ${Math.round(ms / 1_000)} s for ${what}`)
    return false
  }
  /** Every job to be final, and on the way there never so long without the end of one: on a busy machine many take long, and none waits. */
  async settled(ms?: number, stillMs = Infinity): Promise<number> {
    let [left, since, longest] = [Infinity, performance.now(), 0]
    const none = async () => {
      const count = await this.count('finished_at IS NULL')
      longest = Math.max(longest, performance.now() - since)
      if (count !== left) [left, since] = [count, performance.now()]
      return count === 0
    }
    await this.until('every job to end', none, ms, 250)
    this.expect(longest <= stillMs, `no job ended for ${Math.round(longest)} ms while some waited`)
    return Math.round(longest)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Of a show that failed in one place another may still be under way.
    this.#over = true
    await Promise.all([...this.#kept].map(each => each.leave('SIGKILL')))
    await Promise.all([...this.#instances].map(each => each.kill('SIGKILL')))
    await this.#tables?.close().catch(() => {})
    const ends = await Promise.allSettled([this.sink[Symbol.asyncDispose](), this.redis?.stop(), this.postgres?.stop()])
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }
}
