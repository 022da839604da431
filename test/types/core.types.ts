// Compiled and never run: each @ts-expect-error is something that must not compile.
import { z } from 'zod'
import { defineErrors, defineHook, definePlugin, definePoint, defineService, live, settled } from '#core'
import type { Live, Logger, Plugin, ServiceRef } from '#core'

interface Mail { send(to: string): Promise<void> }
interface Page { readonly path: string }
const Mail = defineService<Mail>('types.mail')
const Other = defineService<{ ping(): number }>('types.other')
const Page = definePoint<Page>('types.page', { key: page => page.path })
const Sent = defineHook.notify<{ readonly to: string }>('types.sent')
const BeforeSend = defineHook.series<{ readonly to: string }>('types.before-send')
const Shape = defineHook.waterfall<{ readonly text: string }>('types.shape')
const Route = defineHook.first<{ readonly path: string }, number>('types.route')

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Equal<A, B>): void => {}

export const plain: Plugin = definePlugin({ name: 'plain', setup() {} })

export const declared = definePlugin({
  name: 'declared',
  config: z.strictObject({ port: z.int().default(1) }),
  uses: { mail: Mail, other: live(Other), pages: settled(Page) },
  provides: [Other],
  contributes: [Page],
  guards: [BeforeSend],
  async setup(ctx, deps) {
    same<typeof deps.mail, Mail>(true)
    same<typeof deps.other, Live<{ ping(): number }>>(true)
    same<typeof ctx.config, { port: number }>(true)
    for (const page of deps.pages) same<typeof page, Page>(true)

    ctx.provide(Other, { ping: () => 1 })
    // @ts-expect-error a value of another type
    ctx.provide(Other, { ping: () => 'one' })
    // @ts-expect-error not in `provides`
    ctx.provide(Mail, deps.mail)

    same<ReturnType<typeof ctx.use<typeof Mail>>, Mail>(true)
    // @ts-expect-error used live only, so it may not be there
    ctx.use(Other)
    // @ts-expect-error not in `uses`
    void deps.nothing

    ctx.contribute(Page, { path: '/' })
    // @ts-expect-error a page has a path
    ctx.contribute(Page, {})
    // @ts-expect-error not in `contributes`
    ctx.contribute(definePoint<string>('types.undeclared'), 'x')

    ctx.hook(Sent, ({ to }) => void to.toUpperCase())
    ctx.hook(BeforeSend, ({ to }) => void to.toUpperCase(), { order: 'pre' })
    // @ts-expect-error a waterfall that is not in `guards`
    ctx.hook(Shape, value => value)
    // @ts-expect-error the input has no such field
    ctx.hook(Sent, ({ from }) => void from)
    // @ts-expect-error there is no such order
    ctx.hook(Sent, () => {}, { order: 'first' })

    const answer = await ctx.call(Route, { path: '/' })
    same<typeof answer, number | undefined>(true)
    const shaped = await ctx.call(Shape, { text: '' })
    same<typeof shaped, { readonly text: string }>(true)
    // @ts-expect-error the input is of another type
    void ctx.call(Sent, { to: 1 })

    class Outbox { constructor(readonly deps: { mail: Mail; log: Logger; config: { port: number } }) {} }
    same<ReturnType<typeof ctx.make<Outbox>>, Outbox>(true)
    class Greedy { constructor(readonly deps: { database: string }) {} }
    // @ts-expect-error it needs what the plugin does not declare
    ctx.make(Greedy)

    return { start() {}, reconfigure: next => Promise.resolve(next.port === 1) }
  },
})

export const wrongLifecycle = definePlugin({
  name: 'wrong-lifecycle',
  // @ts-expect-error reconfigure answers true or false
  setup: () => ({ reconfigure: () => 'yes' }),
})

// @ts-expect-error two services of different types are not the same
export const mixed: ServiceRef<Mail> = Other

const Errors = defineErrors('TYPES', { LOST: { message: '"{what}" is lost', fix: 'Look in {place}.' }, BUSY: { message: 'busy', fix: 'Wait.' } })
Errors.LOST({ what: 'a', place: 'b', more: 1 })
Errors.BUSY()
// @ts-expect-error a hole of the message is not filled
Errors.LOST({ place: 'b' })
// @ts-expect-error a hole of the fix is not filled
Errors.LOST({ what: 'a' })
// @ts-expect-error an error with holes needs details
Errors.LOST()
// @ts-expect-error no such row
Errors.FOUND()
// @ts-expect-error every error has a fix
defineErrors('TYPES', { NONE: { message: 'x' } })
same<typeof Errors.BUSY.code, 'TYPES_BUSY'>(true)
