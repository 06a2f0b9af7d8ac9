"""Baidu's H5 face real-name verification (人脸实名认证) for Django."""

__version__ = "0.1.0.dev0"
