import { defineErrors } from '../errors.ts'

/** Every mistake in a config file or a variable. `details` has file, line, column, path, expected and got where they are known. */
export const ConfigErrors = defineErrors('CONFIG', {
  FILE_MISSING: { message: 'the config file {file} does not exist', fix: 'Check the path given with --config; it is relative to {folder}.' },
  FILE_UNREADABLE: { message: 'the config file {file} cannot be read: {reason}', fix: 'Make it a readable text file in UTF-8, smaller than 1 MB.' },
  ENVIRONMENT: { message: '{variable} names the environment "{name}", {reason}', fix: '{advice}' },
  SYNTAX: { message: '{file}:{line}:{column}: {reason}', fix: '{advice}' },
  SHAPE: { message: '{path} is not as it should be: {reason}', fix: 'Write {expected}.' },
  UNKNOWN_KEY: { message: '{path}: there is no setting "{key}" here', fix: '{advice}' },
  NOTHING_TO_REMOVE: { message: '{path} is empty, and an empty value removes what a lower layer set, but none did', fix: '{advice}' },
  SETTING: { message: '{path}: {reason}', fix: 'Write {expected}.' },
  REFERENCE: { message: '{path}: {source}: {reason}', fix: 'Write {expected}.' },
  VARIABLE_MISSING: { message: '{path} refers to the environment variable {name}, which is not set', fix: '{advice}' },
  FILE_REFERENCE: { message: '{path} refers to {target}, which cannot be read: {reason}', fix: 'Correct the path (it is relative to {folder}) or the rights of the file; at most 64 kB of UTF-8 text.' },
  SECRET_REFUSED: { message: '{path} is not made for secrets, but {source} would put one there', fix: 'The plugin must declare it as z.instanceof(Secret); a value that is no secret belongs in the file, or in a variable whose name does not say key, token, password or secret.' },
  SECRET_PLAIN: { message: '{path} is a secret and must not stand in a config file', fix: '{advice}' },
  VARIABLE_UNKNOWN: { message: '{variable} matches no setting', fix: '{advice}' },
  VARIABLE_AMBIGUOUS: { message: '{variable} matches two settings: {matches}', fix: 'Set them in a config file instead.' },
  VARIABLE_UNUSED: { message: '{variable} is set, but plugin "{plugin}" has no setting "{setting}", so it would be ignored', fix: 'Unset it, or install a plugin that takes it.' },
  ISOLATION: { message: '{path}: plugins cannot be isolated yet; running one in a worker thread comes in a later release', fix: 'Remove `isolation`; the plugin runs in this process.' },
})
