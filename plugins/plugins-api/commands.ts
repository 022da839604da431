import type { Command } from '#core'
import type { Problem } from '#contracts/http'
import type { Action, Changed } from './switchboard.ts'

const command = (action: Action, done: string, summary: string): Command => ({
  name: `plugins ${action}`,
  summary,
  needs: 'server',
  arguments: [{ name: '<name>', summary: 'its name in the config' }],
  examples: [`backplane plugins ${action} alerts`],
  async run(io) {
    const [name] = io.args as [string]
    const response = await io.server!.fetch(`/api/v1/plugins/${encodeURIComponent(name)}/${action}`, { method: 'POST', signal: io.signal })
    const body = await response.json().catch(() => undefined) as Changed | Problem | undefined
    if (io.json) io.out(JSON.stringify(body, null, 2))
    if (!response.ok) {
      if (!io.json) tell(body as Problem | undefined, response.status, line => io.err(line))
      return 1
    }
    const { restarted, accepted } = body as Changed
    const others = restarted.filter(each => each !== name)
    if (!io.json) io.out(`${name} ${accepted ? 'is being reloaded' : done}${others.length > 0 ? `; with it: ${others.join(', ')}` : ''}`)
    return 0
  },
})

function tell(problem: Problem | undefined, status: number, line: (text: string) => void): void {
  line(problem?.detail === undefined ? `the server answered ${status}; is its plugin plugins-api loaded?` : `${problem.code}: ${problem.detail}`)
  for (const { path, message } of problem?.errors ?? []) line(`  ${path}: ${message}`)
  if (problem?.fix !== undefined) line(`  fix: ${problem.fix}`)
}

export default [
  command('enable', 'is enabled', 'Start a plugin that was disabled, in the running server'),
  command('disable', 'is disabled until it is enabled or the config is edited', 'Stop a plugin of the running server, and those that stand on it'),
  command('reload', 'was restarted', 'Restart a plugin of the running server, and those that stand on it'),
]
