import { Deadline, maskSecrets, reasonOf, scope, type Clock, type Contribution, type Contributions, type Host } from '#core'
import { HealthErrors, type Health, type HealthCheck, type HealthReport, type HealthResult, type HealthStatus, type Readiness } from '#contracts/health'

const TIMEOUT_MS = 5_000
const TTL_MS = 1_000
/** Readiness is asked for often, by who does not wait long: Kubernetes 1 s, if it is told nothing else. */
const NOTED_MS = 500
const RANK: Readonly<Record<HealthStatus, number>> = { unconfigured: 0, healthy: 0, degraded: 1, unhealthy: 2 }

export type CheckReport = HealthReport['checks'][string]

class Timeout extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

/** The runs of one check: one at a time, and its last answer for as long as that is fresh. */
class Checking {
  #last: CheckReport | undefined
  #at = 0
  #running: Promise<CheckReport> | undefined
  /** A run that was given up on and has not ended yet. */
  #stuck = false
  constructor(readonly contribution: Contribution<HealthCheck>, readonly clock: Clock) {}

  report(): Promise<CheckReport> | CheckReport {
    const { ttl = TTL_MS } = this.contribution.value
    if (this.#last && this.clock.now() - this.#at < ttl) return this.#last
    return (this.#running ??= this.#run().then(report => {
      this.#last = report
      this.#at = this.clock.now()
      this.#running = undefined
      return report
    }))
  }

  async #run(): Promise<CheckReport> {
    const { plugin, value: check } = this.contribution
    const ms = check.timeout ?? TIMEOUT_MS
    const from = performance.now()
    const passed = () => Math.round((performance.now() - from) * 10) / 10
    const done = (result: HealthResult): CheckReport => ({ ...tidy(result), critical: check.critical === true, response_time_ms: passed() })
    if (this.#stuck) return done({ status: 'unhealthy', message: 'the run before this one has still not ended' })
    const stopper = new AbortController()
    return await new Promise<CheckReport>(resolve => {
      const deadline = new Timeout(() => {
        const error = HealthErrors.CHECK_TIMEOUT({ ms })
        this.#stuck = true
        resolve(done({ status: 'unhealthy', message: error.message }))
        stopper.abort(error)
      })
      this.clock.deadlines.arm(deadline, ms)
      const over = (result: HealthResult) => { this.#stuck = false; this.clock.deadlines.disarm(deadline); resolve(done(result)) }
      const failed = (error: unknown) => over({ status: 'unhealthy', message: reasonOf(error) })
      scope.run({ plugin }, async () => await check.check(stopper.signal)).then(over, failed)
    })
  }
}

function tidy(result: HealthResult): HealthResult {
  if (!Object.hasOwn(RANK, result?.status)) return { status: 'unhealthy', message: 'the check gave no status' }
  const { status, message, details } = result
  return { status, ...(message !== undefined && { message: maskSecrets(message) }), ...(details !== undefined && { details }) }
}

export interface CheckerDeps {
  readonly checks: Pick<Contributions<HealthCheck>, 'all' | 'away'>
  readonly host: Pick<Host, 'inspect'>
  readonly clock: Clock
}

/** Runs what was contributed to the point, all in parallel. */
export class Checker implements Health {
  #checkings = new WeakMap<HealthCheck, Checking>()
  constructor(readonly deps: CheckerDeps) {}

  async report(): Promise<HealthReport> {
    const reports = await Promise.all(this.#contributions().map(async each => [each.value.name, await this.#ask(each)] as const))
    const worst = Math.max(0, ...reports.map(([, { status, critical }]) => (critical ? RANK[status] : Math.min(RANK[status], RANK.degraded))))
    const status = (['healthy', 'degraded', 'unhealthy'] as const)[worst]!
    return { status, timestamp: new Date(this.deps.clock.now()).toISOString(), checks: Object.fromEntries(reports) }
  }

  /** One check by its name. Rejects with HEALTH_CHECK_UNKNOWN. */
  async one(name: string): Promise<CheckReport> {
    const found = this.#contributions().find(each => each.value.name === name)
    if (!found) throw HealthErrors.CHECK_UNKNOWN({ name })
    return await this.#ask(found)
  }

  async ready(): Promise<Readiness> {
    const { state } = this.deps.host.inspect()
    if (state !== 'running') return { ready: false, reasons: [state === 'stopping' || state === 'stopped' ? 'draining' : 'starting'], degraded: [] }
    const asked = this.#contributions().filter(({ value }) => value.critical || value.noted)
    const found = await Promise.all(asked.map(async each => ({ name: each.value.name, ...(await this.#status(each)) })))
    const unwell = found.filter(each => RANK[each.status] > 0)
    const keeps = ({ critical, status }: Pick<CheckReport, 'status' | 'critical'>) => critical && status === 'unhealthy'
    const told = (some: typeof unwell) => some.map(each => `check "${each.name}" is ${each.status}`)
    const [reasons, degraded] = [told(unwell.filter(keeps)), told(unwell.filter(each => !keeps(each)))]
    return { ready: reasons.length === 0, reasons, degraded }
  }

  /** Of what readiness does not depend on an answer is not waited for long. */
  async #status(each: Contribution<HealthCheck>): Promise<Pick<CheckReport, 'status' | 'critical'>> {
    const asked = this.#ask(each)
    if (each.value.critical || !(asked instanceof Promise)) return asked
    let cancel = () => {}
    const late = new Promise<Pick<CheckReport, 'status' | 'critical'>>(resolve => {
      cancel = this.deps.clock.after(NOTED_MS, () => resolve({ status: 'unhealthy', critical: false }))
    })
    try { return await Promise.race([asked, late]) } finally { cancel() }
  }

  /** Those there are, and those whose plugin is being swapped: what depends on them should not look well for a moment. */
  #contributions(): Contribution<HealthCheck>[] {
    const { all, away } = this.deps.checks
    return [...all, ...away.filter(each => !all.some(other => other.value.name === each.value.name))]
  }

  #ask(each: Contribution<HealthCheck>): Promise<CheckReport> | CheckReport {
    const { away } = this.deps.checks
    if (away.some(other => other.plugin === each.plugin)) {
      return { status: 'unhealthy', message: `plugin "${each.plugin}" is being restarted`, critical: each.value.critical === true,
        response_time_ms: 0 }
    }
    let checking = this.#checkings.get(each.value)
    if (!checking) this.#checkings.set(each.value, (checking = new Checking(each, this.deps.clock)))
    return checking.report()
  }
}
