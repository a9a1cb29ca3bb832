"""Model calls: tokens, waiting, speed, the model server."""

from __future__ import annotations

from observability.grafana.boards.queries import JOB, UP_DOWN, increase, mean, p95, rate, spread
from observability.grafana.panels import Board, Row, line, q, states

MODEL = "gen_ai_request_model"
LLM = Board(
    "agent-loop-llm",
    "2 Model",
    "Latency and throughput of model calls, use of the context, and what Ollama does with the GPU.",
    [
        Row(
            "Latency as callers see it",
            [
                line(
                    "Time to first token",
                    "s",
                    *spread("gen_ai_server_time_to_first_token_seconds", MODEL, exemplars=True),
                    limits=(2.5,),
                    description="From the request's arrival. 2.5 s is promised for 95 %. A dot is one run: click it.",
                ),
                line(
                    "Time per output token",
                    "s",
                    *spread("gen_ai_server_time_per_output_token_seconds", MODEL),
                ),
                line(
                    "First chunk and gap between chunks, p95",
                    "s",
                    p95("gen_ai_client_operation_time_to_first_chunk_seconds", MODEL, "first"),
                    p95("gen_ai_client_operation_time_per_output_chunk_seconds", MODEL, "gap"),
                ),
            ],
        ),
        Row(
            "Calls and tokens",
            [
                line(
                    "Tokens a second",
                    "short",
                    q(
                        rate("gen_ai_client_inference_tokens_total", "gen_ai_request_model, gen_ai_token_type"),
                        "{{gen_ai_token_type}} {{gen_ai_request_model}}",
                    ),
                ),
                line(
                    "Calls",
                    "reqps",
                    q(
                        rate("gen_ai_client_operation_duration_seconds_count", "gen_ai_request_model, error_type"),
                        "{{gen_ai_request_model}} {{error_type}}",
                    ),
                    stacked=True,
                ),
                line(
                    "Call duration p95",
                    "s",
                    p95("gen_ai_client_operation_duration_seconds", MODEL),
                ),
            ],
        ),
        Row(
            "Context",
            [
                line(
                    "Context used, p95",
                    "percentunit",
                    p95("agent_loop_context_used_ratio", MODEL),
                    limits=(0.9,),
                    most=1,
                    width=12,
                ),
                line(
                    "Did not fit",
                    "short",
                    q(
                        increase("agent_loop_context_truncations_total", "gen_ai_request_model, kind", JOB),
                        "{{gen_ai_request_model}} {{kind}}",
                    ),
                    width=12,
                ),
            ],
        ),
        Row(
            "Ollama",
            [
                states("Answers", q(f"ollama_up{{{JOB}}}", "{{instance}}"), names=UP_DOWN, width=8),
                line(
                    "Share of the model on the GPU",
                    "percentunit",
                    q(f"ollama_model_gpu_ratio{{{JOB}}}", "{{model}}"),
                    most=1,
                    description="Below 100 % part of it runs on the CPU, and everything is slower.",
                ),
                line(
                    "GPU memory of models", "bytes", q(f"ollama_model_vram_bytes{{{JOB}}}", "{{model}}"), stacked=True
                ),
                states(
                    "Loaded models",
                    q(f"ollama_model_loaded{{{JOB}}}", "{{model}}"),
                    names=((0.0, "no", "text"), (1.0, "loaded", "green")),
                    width=8,
                ),
                line(
                    "Where a call's time goes, mean",
                    "s",
                    q(mean("ollama_queue_duration_seconds", "model"), "queue {{model}}"),
                    q(mean("ollama_load_duration_seconds", "model"), "load {{model}}"),
                    q(mean("ollama_prompt_eval_duration_seconds", "model"), "prompt {{model}}"),
                    q(mean("ollama_eval_duration_seconds", "model"), "generate {{model}}"),
                    stacked=True,
                    width=16,
                ),
            ],
        ),
    ],
    jobs=True,
)
