"use strict";
/* The progress of a job. Without scripts the page is reloaded by hand. */
document.addEventListener("DOMContentLoaded", () => {
    const card = document.querySelector("[data-status]");
    if (!card) {
        return;
    }
    const bar = card.querySelector("progress");
    const text = document.getElementById("fp-job-progress");
    let wait = 1000;

    const look = async () => {
        try {
            const answer = await fetch(card.dataset.status, { credentials: "same-origin", cache: "no-store" });
            if (answer.ok) {
                const told = await answer.json();
                if (!told.unfinished) {
                    window.location.reload();
                    return;
                }
                bar.value = told.done;
                text.textContent = told.text;
                wait = 1500;
            } else {
                wait = Math.min(wait * 2, 30000);
            }
        } catch {
            // The server restarts, or the network is gone: look again later.
            wait = Math.min(wait * 2, 30000);
        }
        window.setTimeout(look, wait);
    };
    window.setTimeout(look, wait);
});
