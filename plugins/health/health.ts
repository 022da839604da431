import { statfs } from 'node:fs/promises'
import { availableParallelism, freemem, totalmem } from 'node:os'
import { type IntervalHistogram } from 'node:perf_hooks'
import { constrainedMemory, memoryUsage } from 'node:process'
import type { Host } from '#core'
import type { HealthCheck, HealthStatus } from '#contracts/health'
import type { HealthConfig } from './config.ts'

/** How often the event loop is looked at. */
export const RESOLUTION_MS = 20
const GB = 1024 ** 3
const round = (value: number, digits = 1): number => Number(value.toFixed(digits))
const level = (value: number, degraded: number, unhealthy: number): HealthStatus =>
  (value >= unhealthy ? 'unhealthy' : value >= degraded ? 'degraded' : 'healthy')

/**
 * Unhealthy, and the process not ready, when a plugin that may not be missing is; degraded when an optional one is, or a handler
 * rests. Faults of plugins that run are told, and change nothing: they are counted since the start, and may be long past.
 */
export const pluginsCheck = (host: Pick<Host, 'inspect'>): HealthCheck => ({
  name: 'plugins', critical: true,
  async check() {
    const { plugins, hooks } = host.inspect()
    const failed = plugins.filter(each => each.state === 'failed')
    const handlers = hooks.filter(each => each.quarantined)
    const resting = [...new Set(handlers.map(each => each.plugin))]
    const faulty = plugins.filter(each => each.state === 'running' && each.faults > 0)
    const status = failed.some(each => !each.optional) ? 'unhealthy' : failed.length > 0 || resting.length > 0 ? 'degraded' : 'healthy'
    const parts: string[] = []
    const restOf = (plugin: string) => `${plugin} (${handlers.filter(each => each.plugin === plugin).map(each => each.hook).join(', ')})`
    if (failed.length > 0) parts.push(`not running: ${failed.map(each => each.name).join(', ')}`)
    if (resting.length > 0) parts.push(`in quarantine: ${resting.map(restOf).join(', ')}`)
    if (faulty.length > 0) parts.push(`faults since start: ${faulty.map(each => `${each.name} ${each.faults}`).join(', ')}`)
    const running = plugins.filter(each => each.state === 'running').length
    return {
      status, ...(parts.length > 0 && { message: parts.join('; ') }),
      details: {
        total: plugins.length, running, failed: failed.map(each => each.name), quarantined: resting,
        handlers: handlers.map(({ plugin, hook, failures }) => ({ plugin, hook, failures })),
        faults: Object.fromEntries(faulty.map(each => [each.name, each.faults])),
      },
    }
  },
})

export interface MemoryReading { readonly total: number; readonly free: number; readonly resident: number }

/** In a container the limit is the container's; what the machine has free is then nobody's to use. Bytes. */
export function readMemory(): MemoryReading {
  const resident = memoryUsage.rss()
  const limit = constrainedMemory?.()
  const contained = limit !== undefined && limit > 0 && limit < totalmem()
  return contained ? { total: limit, free: Math.max(0, limit - resident), resident } : { total: totalmem(), free: freemem(), resident }
}

export const memoryCheck = ({ degradedPercent, unhealthyPercent }: HealthConfig['memory'], read = readMemory): HealthCheck => ({
  name: 'memory',
  async check() {
    const { total, free, resident } = read()
    const used = total - free
    const percent = (100 * used) / total
    return {
      status: level(percent, degradedPercent, unhealthyPercent), message: `${round(percent)} % in use`,
      details: { percent_used: round(percent), used_gb: round(used / GB, 2), total_gb: round(total / GB, 2), process_gb: round(resident / GB, 3) },
    }
  },
})

export interface DiskReading { readonly blocks: number; readonly bfree: number; readonly bavail: number; readonly bsize: number }

export type ReadDisk = (folder: string) => Promise<DiskReading>

export const diskCheck = ({ degradedPercent, unhealthyPercent }: HealthConfig['disk'], folder: string, read: ReadDisk = statfs): HealthCheck => ({
  name: 'disk', ttl: 10_000,
  async check() {
    const reading = await read(folder).catch((error: NodeJS.ErrnoException) => { if (error.code !== 'ENOENT') throw error })
    if (!reading) return { status: 'unconfigured', message: 'the data folder is not there yet' }
    const { blocks, bfree, bavail, bsize } = reading
    const used = blocks - bfree
    // As df counts: what is kept for root is neither used nor free.
    const percent = used + bavail > 0 ? (100 * used) / (used + bavail) : 100
    return {
      status: level(percent, degradedPercent, unhealthyPercent), message: `${round(percent)} % in use`,
      details: { percent_used: round(percent), free_gb: round((bavail * bsize) / GB, 2) },
    }
  },
})

export type Delays = Pick<IntervalHistogram, 'percentile' | 'max' | 'mean' | 'count' | 'reset'>

/** Of what passed since the last look. */
export const eventLoopCheck = ({ degradedMs, unhealthyMs }: HealthConfig['eventLoop'], delays: Delays): HealthCheck => ({
  name: 'event-loop',
  async check() {
    // The histogram counts from one sample to the next, the pause between them included.
    const ms = (nanoseconds: number) => round(Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS))
    const seen = delays.count > 0
    const [p99, max, mean] = seen ? [ms(delays.percentile(99)), ms(delays.max), ms(delays.mean)] : [0, 0, 0]
    delays.reset()
    return {
      status: level(p99, degradedMs, unhealthyMs), message: `99 % of turns within ${p99} ms`,
      details: { p99_ms: p99, max_ms: max, mean_ms: mean, cpus: availableParallelism() },
    }
  },
})
