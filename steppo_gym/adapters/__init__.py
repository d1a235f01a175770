"""The environments inside other frameworks; see docs/adapters.md.

Nothing is exported here, because each module imports its framework: `trl` (which imports none), `verifiers`, `openenv`,
`nemo_gym` and `chat_tools`.
"""
