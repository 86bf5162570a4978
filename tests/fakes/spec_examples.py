"""The three examples of model-specs.md, mended where anybody must mend them and nowhere else.

That is: outer braces, missing commas, and the placeholders (`{model_file_name}`, the ` - ` after `download_url`). Blanks at the ends of lines are gone.
"""

from __future__ import annotations

from typing import Final

ZEPHYR: Final = """\
{
# Required
"origin": "TheBloke/zephyr-7B-beta-GGUF",

# Optional - by default use `default``
"import_format": "thebloke",
#    default         # downloads the whole thing
#    thebloke        # custom importer (detects from URL)
#    janhq           # Custom importers
#    openai

# optional, by default download model with recommended hardware
"download_url": "zephyr-7b-beta.Q2_K.gguf",
# https://huggingface.co/TheBloke/zephyr-7B-beta-GGUF/resolve/main/zephyr-7b-beta.Q2_K.gguf?download=true

# Optional: OpenAI format
"id": "model-zephyr-7B", # No need to specify, only need to return in API
"object": "model",
"created": 1686935002, # Unix timestamp
"owned_by": "TheBloke",

parameters: {
    "init": {
        "ctx_len": 2048,
        "ngl": 100,
        "embedding": true,
        "n_parallel": 4,
        "pre_prompt": "A chat between a curious user and an artificial intelligence",
        "user_prompt": "USER: ",
        "ai_prompt": "ASSISTANT: "
    },
    "runtime": {
        "temperature": "0.7",
        "token_limit": "2048",
        "top_k": "",
        "top_p": "..",
    }
},

// Jan specific configs
"metadata": {               // @Q: should we put all under "jan"
    "engine": "llamacpp",               // enum[llamacpp,api]
}
}
"""

LLAVA: Final = """\
{
# Required
"origin": "mys/ggml_llava-v1.5-13b",

# Optional - by default use `default``
"import_format": "default",
#    default         # downloads the whole thing
#    thebloke        # custom importer (detects from URL)
#    janhq           # Custom importers
#    openai

# Optional: OpenAI format
"id": "model-llava-v1.5-ggml", # No need to specify, only need to return in API"object": "model",
"created": 1686935002,
"owned_by": "TheBloke",

parameters: {
    "init": {
        "ctx_len": 2048,
        "ngl": 100,
        "embedding": true,
        "n_parallel": 4,
        "pre_prompt": "A chat between a curious user and an artificial intelligence",
        "user_prompt": "USER: ",
        "ai_prompt": "ASSISTANT: "
    },
    "runtime": {
        "temperature": "0.7",
        "token_limit": "2048",
        "top_k": "",
        "top_p": "..",
    }
},

// Jan specific configs
"metadata": {               // @Q: should we put all under "jan"
    "engine": "llamacpp",               // enum[llamacpp,api]
}
}
"""

AZURE: Final = """\
{
# Required
"origin": "https://docs-test-001.openai.azure.com/",
# This is `api.openai.com` if it's OpenAI platform

# Optional - by default use `default``
"import_format": "azure_openai",
#    default         # downloads the whole thing
#    thebloke        # custom importer (detects from URL)
#    janhq           # Custom importers
#    azure_openai    # Custom importers
#    openai          # Custom importers

# Optional: OpenAI format
"id": "/openai.azure.com/docs-test-001/gpt4-turbo", # Autofilled by Jan with required URL above
"object": "model",
"created": 1686935002,
"owned_by": "OpenAI Azure",

parameters: {
    "init": {
        "API-KEY": "",
        "DEPLOYMENT-NAME": "",
        "api-version": "2023-05-15"
    },
    "runtime": {
        "temperature": "0.7",
        "max_tokens": "2048",
        "presence_penalty": "0",
        "top_p": "1",
        "stream": "true"
    }
},

// Jan specific configs
"metadata": {               // @Q: should we put all under "jan"
    "engine": "api",               // enum[llamacpp,api]
}
}
"""

ALL: Final = {"zephyr": ZEPHYR, "llava": LLAVA, "azure": AZURE}
