"""A LangChain retriever over a server.

retriever = RagRetriever(url="http://127.0.0.1:8000", store="manual", key="…")
documents = retriever.invoke("Which file formats can be ingested?")
"""

from __future__ import annotations

from api.extras import extra
from api.integrations.searching import Json, Searching, metadata_of, text_of

with extra("langchain"):
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever


class RagRetriever(BaseRetriever):
    """The chunks of a store as documents, best first; a document's `id` is the chunk's."""

    searching: Searching

    def __init__(self, url: str, store: str, **options: object) -> None:
        """`options` are the fields of `Searching`: `key`, `limit`, `filters`, `mode`, `min_relevance`."""
        searching = Searching.model_validate({"url": url, "store": store, **options})
        super().__init__(searching=searching)  # type: ignore[call-arg]

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - it is told of by the caller
    ) -> list[Document]:
        return [self._document(hit) for hit in self.searching.search(query)]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        return [self._document(hit) for hit in await self.searching.asearch(query)]

    def _document(self, hit: Json) -> Document:
        metadata = metadata_of(hit, self.searching.store)
        return Document(id=str(hit["chunk_id"]), page_content=text_of(hit), metadata=metadata)
