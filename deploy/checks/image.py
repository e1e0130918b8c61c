"""The image's recipe."""

from report import SCRIPTS, TOP, run


def check_hadolint_accepts_the_Dockerfile():
    run(SCRIPTS / "hadolint", "--no-color", TOP / "deploy/Dockerfile")
