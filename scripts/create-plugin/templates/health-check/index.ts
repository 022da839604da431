import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { definePlugin } from 'backplane'
import { HealthCheck, type HealthResult } from 'backplane/contracts/health'
import { z } from 'zod'

const config = z.strictObject({
  folder: z.string().min(1).default('.').describe('The folder that must be there and writable.'),
  critical: z.boolean().default(false).describe('Does readiness depend on it?'),
})

/** Asks one thing how it is. A throw means unhealthy, so say in words what can be told. */
export async function checkFolder(folder: string): Promise<HealthResult> {
  try {
    if (!(await stat(folder)).isDirectory()) return { status: 'unhealthy', message: `${folder} is no folder` }
    await access(folder, constants.W_OK)
    return { status: 'healthy' }
  } catch (error) {
    return { status: 'unhealthy', message: `${folder}: ${(error as NodeJS.ErrnoException).code ?? String(error)}` }
  }
}

export default definePlugin({
  name: '{{name}}',
  summary: 'Tells in /health whether a folder is writable',
  config,
  contributes: [HealthCheck],
  setup(ctx) {
    const { folder, critical } = ctx.config
    ctx.contribute(HealthCheck, { name: ctx.name, critical, check: () => checkFolder(folder) })
  },
})
