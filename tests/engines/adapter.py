"""What an engine is asked, one JSON object a line, on its standard input.

`run` starts `<engine>/query.py` with the interpreter that the engine's packages are
installed for, and talks to it until it closes the pipe:

    {"ask": "count", "table": "orders"}   →   {"answer": 5000}   or   {"error": "…"}

An engine answers every question with plain values, so `run` compares them with what
was produced. One that cannot do something raises Cannot with the reason.
"""

import json
import os
import sys
import traceback


class Cannot(Exception):
    """This engine, in this version, cannot do it; the text says what is missing."""


#: How the rows of a table are asked for: per partition the number of rows, of different
#: offsets, the least and the greatest offset.
SHAPE = (
    "SELECT kafka_partition, count(*), count(DISTINCT kafka_offset), min(kafka_offset), "
    "max(kafka_offset) FROM {table} GROUP BY kafka_partition ORDER BY kafka_partition"
)


def serve(make):
    """Answers questions; `make(uri, store)` makes the engine, `store` being a dictionary of
    what it needs to reach the objects."""
    # Whatever the engine prints is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    uri, store = sys.argv[1], json.loads(sys.argv[2])
    engine = make(uri, store)


    def answer(**what):
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        answer(answer=engine.version)
        for line in sys.stdin:
            question = json.loads(line)
            try:
                answer(answer=getattr(engine, question.pop("ask"))(**question))
            except Cannot as reason:
                answer(cannot=str(reason))
            except Exception:
                answer(error=traceback.format_exc())
    finally:
        if hasattr(engine, "end"):
            engine.end()
