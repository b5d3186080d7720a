"""One file for each outside system."""

# httpx would import it within a request. Python 3.11 may fail there: where what is collected as garbage at that very
# moment imports it too, the two share one lock, and the one that comes second finds it gone.
import sniffio as sniffio
