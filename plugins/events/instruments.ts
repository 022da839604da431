import { counter, gauge } from '#contracts/metrics'

export const instruments = {
  appended: counter({ name: 'events_appended_total', help: 'Events written to the log by this process', labels: ['type'] }),
  removed: counter({ name: 'events_removed_total', help: 'Events removed from the log because of their age or number' }),
  consumed: counter({ name: 'events_consumed_total', help: 'Events that a consumer of this process has handled', labels: ['consumer'] }),
  failed: counter({ name: 'events_consumer_failures_total', help: 'Batches that a consumer of this process failed on', labels: ['consumer'] }),
  missed: counter({ name: 'events_consumer_gaps_total', help: 'Times that events were removed before their consumer had seen them', labels: ['consumer'] }),
  behind: gauge({ name: 'events_consumer_behind', help: 'Positions between a consumer that runs here and the end of the log', labels: ['consumer'] }),
  readers: gauge({ name: 'events_readers', help: 'Who follows the log in this process' }),
}
