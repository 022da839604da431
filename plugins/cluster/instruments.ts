import { counter, gauge } from '#contracts/metrics'

export const instruments = {
  instances: gauge({ name: 'cluster_instances', help: 'Processes of this deployment that are alive' }),
  gained: counter({ name: 'cluster_leases_gained_total', help: 'Leases that this process got', labels: ['name'] }),
  lost: counter({ name: 'cluster_leases_lost_total', help: 'Leases that this process lost before it gave them back', labels: ['name'] }),
  sent: counter({ name: 'cluster_messages_sent_total', help: 'Messages sent to all processes', labels: ['channel'] }),
  received: counter({ name: 'cluster_messages_received_total', help: 'Messages of other processes', labels: ['channel'] }),
}
