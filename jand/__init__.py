"""jand: drop a model into a folder, use it from every app.

The layers, top to bottom; each may import only what is below it, and a test holds it to that:

    cli . daemon                      the command line; the composition root
    api . service . client            HTTP on the socket; being a service; talking to one
    lifecycle                         one actor for each model; the only place where its state changes
    library . download . engine       what lies on the disk; what is fetched; what runs. Blind to one another
    model                             what a model is: no I/O but reading a given stream, no asyncio
    settings . log . tasks . paths . atomic . outflow . manual . errors

What holds everywhere: the models folder is the truth and the registry follows from a scan of it. Each outside thing has one
door (watchdog: library.watcher; llama_cpp: engine.worker, never the daemon's process; python-daemon: service.detach). Only api knows
HTTP status codes, only cli knows terminals, only settings reads the environment. No user's file is changed or deleted but by an
explicit DELETE.
"""

__version__ = "0.1.0"
