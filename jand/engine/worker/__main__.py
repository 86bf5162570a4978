"""python -m jand.engine.worker CONTROL LIFELINE PARENT MODEL: what the daemon executes for a running model."""

from jand.engine.worker.main import main

main()
