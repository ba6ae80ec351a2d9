"""Every Python block of the tutorials is run; what follows `>>>` is compared with what it prints."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], pattern="tutorials/*.md").pytest()
