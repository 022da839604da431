import { definePlugin } from '#core'
import { Access } from '#contracts/access'
import { config } from './config.ts'
import { createOpenAccess } from './operator.ts'

export default definePlugin({
  name: 'access-open',
  summary: 'Lets a lone operator in, on this machine only',
  config,
  provides: [Access],
  setup(ctx) { ctx.provide(Access, createOpenAccess(ctx.config.origins)) },
})
