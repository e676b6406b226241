"""Hooks around each item."""

from .base import BaseMiddleware, Middleware

__all__ = ["BaseMiddleware", "Middleware"]
