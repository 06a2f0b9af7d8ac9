// The identity of a record in clear, for a reason and for a minute; then the page is as it was.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const form = document.getElementById("fp-reveal");
    if (!form) {
        return;
    }
    const places = Array.from(document.querySelectorAll("[data-identity]"));
    const facts = document.getElementById("fp-card-facts");
    const state = document.getElementById("fp-identity-state");
    const alert = form.querySelector("[role=alert]");
    const button = form.querySelector("button");
    let hide = null;

    const show = (answer) => {
        const masked = places.map((place) => place.textContent);
        const maskedFacts = Array.from(facts.children);
        answer.rows.flat().forEach((text, index) => {
            places[index].textContent = text || "–";
        });
        facts.replaceChildren(...answer.facts.map(([name, value]) => {
            const row = document.createElement("div");
            row.append(document.createElement("dt"), document.createElement("dd"));
            row.children[0].textContent = name;
            row.children[1].textContent = value;
            return row;
        }));
        const until = Date.now() + answer.seconds * 1000;
        const tick = () => {
            const left = Math.ceil((until - Date.now()) / 1000);
            if (left <= 0) {
                hide();
            } else {
                state.textContent = form.dataset.shown.replace("{seconds}", left);
            }
        };
        const timer = setInterval(tick, 500);
        hide = () => {
            clearInterval(timer);
            places.forEach((place, index) => {
                place.textContent = masked[index];
            });
            facts.replaceChildren(...maskedFacts);
            state.textContent = form.dataset.hidden;
            button.disabled = false;
            hide = null;
        };
        tick();
    };

    // A page that is put aside, to be shown again by the back button, keeps nothing in clear.
    window.addEventListener("pagehide", () => hide && hide());

    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        if (hide) {
            return;
        }
        button.disabled = true;
        alert.hidden = true;
        let problem = form.dataset.failed;
        try {
            const response = await fetch(form.action, {
                method: "POST",
                body: new FormData(form),
                headers: {"Accept": "application/json"},
                redirect: "error",
            });
            const answer = await response.json();
            if (response.ok) {
                form.elements.reason_text.value = "";
                show(answer);
                return;
            }
            problem = answer.problem || problem;
        } catch {
            // Said below: no network, or a session that has ended.
        }
        alert.textContent = problem;
        alert.hidden = false;
        button.disabled = false;
    });
});
