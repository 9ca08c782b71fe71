"""The stages of a run; each takes a :class:`~fewbits.pipeline.Work` and hands on a further one."""
