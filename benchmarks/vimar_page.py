def page(results):
    import json
    return json.dumps(results, indent=1)
