import { counter, gauge, histogram } from '#contracts/metrics'

/** Made anew for each life of the plugin. Routes are named by their pattern, never by a path that a client made up. */
export const createInstruments = () => ({
  requests: counter({ name: 'http_requests_total', help: 'Requests answered', labels: ['method', 'route', 'status'] }),
  duration: histogram({ name: 'http_request_duration_seconds', help: 'Time until the answer, or until the head of a stream',
    labels: ['method', 'route'] }),
  inProgress: gauge({ name: 'http_requests_in_progress', help: 'Requests under way, open streams included' }),
})
export type Instruments = ReturnType<typeof createInstruments>
