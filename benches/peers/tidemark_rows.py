"""The rows that Tidemark's index has of generated events, as it answers over HTTP: tidemark_rows.py URL VIDEOS."""

import json
import sys
import urllib.request

url, videos = sys.argv[1], int(sys.argv[2])
# The server takes 1,000 questions at once.
some = 300
for first in range(0, videos, some):
    among = range(first, min(first + some, videos))
    questions = [{"video_id": f"v{video:07}", "event_type": kind} for video in among for kind in ("view", "like", "share")]
    with urllib.request.urlopen(f"{url}/v1/stats", json.dumps(questions).encode()) as answers:
        for answer in json.load(answers):
            for point in answer["series"]:
                print(answer["video_id"], answer["event_type"], point["start"], point["value"], sep="\t")
