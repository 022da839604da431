import { definePlugin } from '#core'
import { Access } from '#contracts/access'
import { createOpenAccess } from './operator.ts'

export default definePlugin({
  name: 'access-open',
  summary: 'Lets a lone operator in, on this machine only',
  provides: [Access],
  setup(ctx) { ctx.provide(Access, createOpenAccess()) },
})
