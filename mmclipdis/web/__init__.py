"""The web page: photo and words in, pictures, tables and downloads out, in a browser.

Needs gradio (``pip install 'mmclipdis[web]'``), which is imported when a page is made.
"""

from mmclipdis.web.server import Running, build, launch

__all__ = ["Running", "build", "launch"]
