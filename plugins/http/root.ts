import type { Contribution } from '#core'
import { defineRoute, type HttpRoute } from '#contracts/http'
import type { RouteTable } from './table.ts'

const WORTH_A_LOOK = ['/health', '/api/v1/agents', '/api/v1/jobs', '/api/v1/plugins', '/metrics']

/** What stands at the address that `backplane start` prints, until a plugin puts a page there. */
export const rootRoute = (version: string, table: () => Pick<RouteTable, 'find'>): HttpRoute => defineRoute({
  method: 'GET', path: '/', summary: 'What this server is, and where to look', public: true, early: true,
  handler: async () => ({ body: { name: 'backplane', version, see: WORTH_A_LOOK.filter(path => table().find('GET', path)) } }),
})

export const withRoot = (all: readonly Contribution<HttpRoute>[], root: HttpRoute): readonly Contribution<HttpRoute>[] =>
  (all.some(({ value }) => value?.method === 'GET' && value.path === '/') ? all : [...all, { plugin: 'http', value: root }])
