"""The web application: Streamlit's, behind the gate that asks for the token. ``slimfed dashboard`` serves it."""

import os
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit.starlette import App

from slimfed.dashboard.access.token_gate import TOKEN, TokenGate, cookie_name

_GATE = Middleware(TokenGate, token=os.environ.get(TOKEN, ""), cookie=cookie_name(st.get_option("server.port")))

app = App(Path(__file__).with_name("app.py"), middleware=[_GATE])
