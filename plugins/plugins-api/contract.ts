import { defineErrors } from '#core'

/** Why a plugin was not enabled, disabled or reloaded. */
export const PluginsApiErrors = defineErrors('PLUGINS', {
  REFUSED: { message: 'can\'t {action} "{plugin}", so all is as before: {reason}', fix: 'Correct what `errors` names, then try again.', status: 409, expose: true },
  NEEDED: { message: 'can\'t disable "{plugin}": {reason}', fix: 'Set `plugins.{plugin}: false` in the config, where it can be taken back without this server\'s help.', status: 409, expose: true },
})
