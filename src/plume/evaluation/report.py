from plume.runs import Run
def write_report(run: Run):
    return run.report_file
