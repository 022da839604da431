import { counter, histogram } from '#contracts/metrics'

export const instruments = {
  lag: histogram({
    name: 'schedule_lag_seconds', help: 'From the time that a schedule names to its job',
    buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3_600],
  }),
  fired: counter({ name: 'schedules_fired_total', help: 'Jobs that schedules submitted', labels: ['project'] }),
  missed: counter({
    name: 'schedules_missed_total', help: 'Times of schedules that brought no job; of a long absence the last 100 are counted', labels: ['reason'],
  }),
}
