import { defineErrors, definePoint, defineService } from '#core'

export type HealthStatus = 'healthy' | 'degraded' | 'unhealthy' | 'unconfigured'

export interface HealthResult {
  readonly status: HealthStatus
  /** For operators; never shown without a permission. */
  readonly message?: string
  readonly details?: Readonly<Record<string, unknown>>
}

/** Asks one thing how it is. Uses the live connections of its plugin, never new ones. A throw means unhealthy. */
export interface HealthCheck {
  readonly name: string
  /** Does readiness depend on it? Asked each time. */
  readonly critical?: boolean
  /** Does readiness tell when it is not well, without depending on it? For what the process can do without for a while. Its answer is waited for half a second. */
  readonly noted?: boolean
  /** Milliseconds; 5,000. */
  readonly timeout?: number
  /** Milliseconds for which an answer is served again; 1,000. */
  readonly ttl?: number
  check(signal: AbortSignal): Promise<HealthResult>
}
export const HealthCheck = definePoint<HealthCheck>('health.check', { key: check => check.name })

export interface HealthReport {
  /** The worst of the checks: a critical one that is unhealthy makes it unhealthy, another one degraded. */
  readonly status: HealthStatus
  readonly timestamp: string
  readonly checks: Readonly<Record<string, HealthResult & { readonly critical: boolean; readonly response_time_ms: number }>>
}

export interface Readiness {
  readonly ready: boolean
  readonly reasons: readonly string[]
  readonly degraded: readonly string[]
}

/** All checks in parallel, each with its own time-out, one run of each at a time. */
export interface Health {
  report(): Promise<HealthReport>
  /** Should this process get traffic? Says why not, and what it does without. */
  ready(): Promise<Readiness>
}
export const Health = defineService<Health>('health.health')

export const HealthErrors = defineErrors('HEALTH', {
  CHECK_UNKNOWN: { message: 'there is no health check "{name}"', fix: 'GET /health lists those that there are.', status: 404, expose: true },
  CHECK_TIMEOUT: { message: 'no answer within {ms} ms', fix: 'See the plugin that contributes the check, and what it asks.' },
})
