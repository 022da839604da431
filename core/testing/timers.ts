import { Session, type Runtime } from 'node:inspector'

/** Timers that keep the process alive: what each runs, where that is written, and after how long. Slow: it asks the debugger. */
export function openTimers(): string[] {
  const session = new Session()
  session.connect()
  try {
    return list(session)
  } catch { return [] } finally { session.disconnect() }
}

/** The debugger of one's own thread answers before `post` returns. */
function ask<T>(session: Session, method: string, params: object): T {
  let answer: T | undefined
  session.post(method, params, (error, result) => { if (!error) answer = result as T })
  if (answer === undefined) throw new Error(`no answer to ${method}`)
  return answer
}

function list(session: Session): string[] {
  const probe = setTimeout(() => {}, 0)
  clearTimeout(probe)
  const holder = globalThis as { backplaneTimers?: { readonly prototype: object; readonly urls: Map<string, string> } }
  const urls = new Map<string, string>()
  holder.backplaneTimers = { prototype: Object.getPrototypeOf(probe) as object, urls }
  session.on('Debugger.scriptParsed', ({ params }) => void urls.set(params.scriptId, params.url))
  try {
    ask(session, 'Debugger.enable', {})
    const evaluate = (expression: string) => ask<Runtime.EvaluateReturnType>(session, 'Runtime.evaluate', { expression }).result.objectId
    const { objects } = ask<Runtime.QueryObjectsReturnType>(session, 'Runtime.queryObjects', { prototypeObjectId: evaluate('backplaneTimers.prototype') })
    const open = ask<Runtime.CallFunctionOnReturnType>(session, 'Runtime.callFunctionOn', {
      objectId: objects.objectId,
      functionDeclaration: 'function () { return this.filter(each => each.hasRef() && !each._destroyed && each._idleTimeout > 0).map(each => ({ ms: each._idleTimeout, run: each._onTimeout })) }',
    }).result.objectId!
    return items(session, open).map(item => {
      const [ms, run] = ['ms', 'run'].map(name => item.find(each => each.name === name)?.value)
      const text = run?.description?.replace(/\s+/g, ' ').slice(0, 100) ?? ''
      return `after ${ms?.value} ms, ${run?.objectId ? where(session, run.objectId, urls) : 'something'}: ${text}`
    })
  } finally { delete holder.backplaneTimers }
}

const properties = (session: Session, objectId: string) => ask<Runtime.GetPropertiesReturnType>(session, 'Runtime.getProperties', { objectId, ownProperties: true })
const items = (session: Session, objectId: string) =>
  properties(session, objectId).result.flatMap(({ name, value }) => (/^\d+$/.test(name) && value?.objectId ? [properties(session, value.objectId).result] : []))

/** The name of a function, and the file and line where it is written. */
function where(session: Session, objectId: string, urls: ReadonlyMap<string, string>): string {
  const { result, internalProperties } = properties(session, objectId)
  const at = internalProperties?.find(({ name }) => name === '[[FunctionLocation]]')?.value?.value as { scriptId: string; lineNumber: number } | undefined
  const name = String(result.find(each => each.name === 'name')?.value?.value ?? '')
  return `${name || 'a function'} of ${at ? `${urls.get(at.scriptId) ?? 'an unknown file'}:${at.lineNumber + 1}` : 'an unknown file'}`
}
