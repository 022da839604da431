import { definePlugin, Host, live } from '#core'
import { Access, PermissionInfo } from '#contracts/access'
import { Broadcast, ClockSkew, Instances, sharedClock } from '#contracts/cluster'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import { HealthCheck } from '#contracts/health'
import { HttpRoute } from '#contracts/http'
import { JobUpdates } from '#contracts/job-updates'
import { Jobs, JobSettled, JobSettling, JobType } from '#contracts/jobs'
import { Metric } from '#contracts/metrics'
import { Questions } from '#contracts/questions'
import { JobQueue } from '#contracts/queue'
import { JobQuestions } from './intake/answers.ts'
import { Backlog } from './intake/backlog.ts'
import { Cancellations } from './work/cancellation.ts'
import { config } from './config.ts'
import { JobControl } from './intake/control.ts'
import { DueJobs } from './work/due.ts'
import { Family } from './intake/family.ts'
import { JobFollower } from './watch/follow.ts'
import { healthCheck } from './health.ts'
import { instruments } from './instruments.ts'
import { JobService } from './intake/jobs.ts'
import { Limits } from './work/limits.ts'
import { migrations } from './migrations.ts'
import { permissions } from './intake/permission.ts'
import { JobQueries } from './tables/queries.ts'
import { routes } from './routes.ts'
import { JobRuns } from './watch/run.ts'
import { JobStore } from './tables/store.ts'
import { Waiting } from './work/waiting.ts'
import { Worker } from './work/worker.ts'

export default definePlugin({
  name: 'jobs',
  summary: 'The system of record of all work: takes jobs in, runs them, brings them to an end',
  config,
  uses: { host: Host, database: Database, queue: JobQueue, access: live(Access), events: live(EventLog),
    broadcast: live(Broadcast), skew: live(ClockSkew), instances: live(Instances) },
  provides: [Jobs, JobUpdates, Questions],
  contributes: [HttpRoute, HealthCheck, Metric, PermissionInfo],
  commands: () => import('./commands.ts'),
  async setup(ctx, { host, database, queue, access, events, broadcast, skew, instances }) {
    await database.migrate('jobs', migrations)
    const clock = sharedClock(ctx.clock, skew)
    const { aging_ms: agingMs, inline_result_bytes: inlineResultBytes } = ctx.config
    const store = new JobStore({ database, queue, clock, events: () => events.current, agingMs, inlineResultBytes })
    const [queries, waiting] = [new JobQueries(database), new Waiting(store)]
    const limits = new Limits({ database, store, clock, config: ctx.config })
    const due = new DueJobs({ store, queries, waiting, database, clock, log: ctx.log, sweepMs: ctx.config.sweep_ms })
    // Whoever takes no jobs sweeps all the same: a job must not wait because its worker, or the scheduler, was the only one.
    const concurrency = host.roles.includes('worker') ? ctx.config.concurrency : 0
    const worker = new Worker({
      store, database, queue, due, waiting, limits, family: () => family, access, clock, log: ctx.log,
      config: { ...ctx.config, concurrency }, owner: host.instanceId, types: ctx.collect(JobType),
      ready: () => ctx.ready(JobSettling),
      settling: (job, tx) => ctx.call(JobSettling, { job, tx }),
      settled: job => void ctx.call(JobSettled, { job }),
    })
    const cancellations = ctx.own(new Cancellations(worker, broadcast, ctx.log), each => each.close())
    const [control, backlog] = [new JobControl(worker, queries, cancellations), new Backlog(queries, clock, ctx.config.max_queued)]
    const follower = new JobFollower({
      store, clock, events: () => events.current, progress: id => worker.find(id)?.progress, get: (caller, id) => jobs.get(caller, id),
    })
    const runs = new JobRuns(worker, control, follower, queries)
    const jobs = new JobService({ worker, queries, control, backlog, runs, events: () => events.current, instances: () => instances.current })
    const family = new Family({ worker, queries, control, backlog, log: ctx.log, insert: (rows, tx) => jobs.insertAll(rows, tx) })
    const questions = new JobQuestions(worker)
    ctx.provide(Jobs, jobs)
    ctx.provide(Questions, questions)
    ctx.provide(JobUpdates, follower)
    for (const route of routes(jobs, questions)) ctx.contribute(HttpRoute, route)
    for (const instrument of Object.values(instruments)) ctx.contribute(Metric, instrument)
    ctx.contribute(HealthCheck, healthCheck(queries, queue, clock, jobs.holdups))
    for (const permission of permissions) ctx.contribute(PermissionInfo, permission)
    return { start: () => worker.start(), drain: () => worker.drain(), stop: () => worker.stop().finally(() => follower.close()) }
  },
})
