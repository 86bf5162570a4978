"""Remote models: a session with a provider that speaks OpenAI's or Azure's dialect, in the place of a worker. Knows neither the library nor the lifecycle."""
